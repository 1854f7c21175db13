"""From verdicts to pages: tables, figures, and all English about results."""
