"""The nouns that everything shares. No file is opened here."""
