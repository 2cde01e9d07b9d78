"""The file system: POSIX verbs over the namespace and the filestore. Knows neither FUSE nor trio."""
