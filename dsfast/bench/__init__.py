"""`dsfast bench`: what this machine and this database make of dsfast, beside what nothing can do without."""
