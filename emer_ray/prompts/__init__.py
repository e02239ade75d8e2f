"""Prompt texts by language, as package data. The words are our own."""
