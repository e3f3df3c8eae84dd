"""Text ↔ token ids: tokenizers of both kinds, chat templates, users' text in prompts."""
