"""The filestore: every distinct content once, under its digest. Knows files, never rows."""
