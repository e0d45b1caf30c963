"""report.html: a run as a page for people. Files -> figures (`collect`) -> page (`page`); no search reads anything of it."""
