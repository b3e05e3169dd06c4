"""Many rows in one request, in any form."""
