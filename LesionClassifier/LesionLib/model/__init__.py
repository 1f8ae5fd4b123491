"""A model is a folder of data: manifest, weights, card; read, verified, installed."""
