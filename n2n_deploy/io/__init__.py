"""Files: micrograph images and tables read into records and arrays, and written whole or not at all."""
