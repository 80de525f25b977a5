"""What the operations of the REST API share: permissions, throttles, fields, pages of lists."""
