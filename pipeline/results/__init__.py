"""What a person or a program asks of the results: as plain dictionaries, or as files."""
