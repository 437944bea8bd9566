"""OpenAI's protocol: requests checked, settings made of them, answers and streams written. No routes."""
