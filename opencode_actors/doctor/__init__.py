"""Checks a host: `facts` gathers what is, `checks` decides what of it is wrong and how to mend it."""
