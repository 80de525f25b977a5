"""What a refused client is told: causes, findings, texts and receipts."""
