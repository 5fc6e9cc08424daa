"""What ragged work costs, beside its peers; see README.md."""
