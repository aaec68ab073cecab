"""What the benchmarks of the micro family share: options, runs, evaluation, statistics and result files."""
