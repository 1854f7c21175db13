"""Many runs: drivers, workers, engines."""
