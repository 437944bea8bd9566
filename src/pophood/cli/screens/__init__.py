"""What single commands show and ask, apart from their options."""
