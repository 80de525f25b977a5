"""One package for each noun: `views`, `page`, `forms`, `urls` and `api`."""
