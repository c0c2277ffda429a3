.PHONY: images images-load
images: setup ## Build every test image and both of the product's, print the archive's path
	@$(PYTHON) tests/images/build.py

images-load: setup ## Bring the images to the running cluster's nodes, where they are missing
	@$(PYTHON) tests/images/build.py load
