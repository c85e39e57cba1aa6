"""The provider's protocol beside an independent implementation's."""
