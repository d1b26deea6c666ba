"""A thesaurus: a contract, a service that stops gracefully, and a client."""
