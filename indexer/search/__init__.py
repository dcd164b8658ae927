"""From a query to an answer: encode, plan, recall, score, rank, and what is shown of each hit."""
