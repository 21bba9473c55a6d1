"""What a result could rest on other than the cells: controls beside every run, and an audit of folds and cohort."""
