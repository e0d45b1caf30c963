"""report.html: a run as a page for people. Files -> figures (`collect`) -> page (`page`); nothing here is read by the search."""
