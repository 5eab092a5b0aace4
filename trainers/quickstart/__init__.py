"""The paper's story on the embedded miniature: three systems trained, compared, saved and proved."""
