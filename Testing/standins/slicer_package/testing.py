"""Stand-in for ``slicer.testing``: how ``slicer_add_python_unittest`` has a module's tests run."""

import sys
import unittest


def exitFailure(message=""):
    raise Exception(message)


def runUnitTest(path, testname):
    """Run every ``test_…`` method of the module ``testname``, each with its own ``setUp``; never ``runTest``."""
    sys.path.extend([path] if isinstance(path, str) else path)
    suite = unittest.TestLoader().loadTestsFromName(testname)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful():
        exitFailure()
