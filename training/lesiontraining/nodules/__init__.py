"""The models of lung nodules that come along: one frozen network, linear heads, nested patient-wise figures."""
