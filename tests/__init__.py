"""The test suite; mirrors the packages of casfs."""
