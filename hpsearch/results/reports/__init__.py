"""Reports of whole searches: tables, figures, one page."""
