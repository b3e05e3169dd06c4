"""From any CSV to an encoded training table, and the file contracts that every later stage relies on."""
