"""Pictures and reports that open anywhere: PNG and one self-contained HTML."""
