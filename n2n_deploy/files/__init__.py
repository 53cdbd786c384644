"""Files that are whole or not there, whoever else writes them."""
