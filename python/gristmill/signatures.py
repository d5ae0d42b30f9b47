"""What files of some formats begin with, known without the code that reads them."""

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK"
