"""Encyclopaedias behind one protocol: MediaWiki over HTTP and ZIM archives."""
