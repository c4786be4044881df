"""Studies run through Papermill, and the pages that they leave behind."""
