from tests.controller.launch.conftest import workplace

__all__ = ["workplace"]
