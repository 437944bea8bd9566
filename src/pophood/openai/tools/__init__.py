"""Calls of functions: the formats in which models write them, their parser, and grammars that force them."""
