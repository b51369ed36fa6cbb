"""What a browser gets from us: GraphiQL, the demo shop and their files; sources in source/, bundles in built/."""
