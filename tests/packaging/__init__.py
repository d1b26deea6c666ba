"""How the library is packaged: what `make wheels` runs, and tests of what the pages say of it."""
