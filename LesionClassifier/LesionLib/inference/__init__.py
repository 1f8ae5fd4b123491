"""The one way to an answer: request, runner, worker process, classifier, result."""
