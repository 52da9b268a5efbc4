"""The parts of evaluation: windows, intervals, trivial players, what is measured, the report."""
