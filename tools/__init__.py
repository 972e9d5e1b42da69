"""What agents work with: encyclopaedias, recall, the knowledge graph, tasks."""
