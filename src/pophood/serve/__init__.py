"""The local server: OpenAI's protocol and security around the scheduler, which only messages reach.

Needs the extra `[serve]`: fastapi, starlette, uvicorn and pydantic.
"""
