# SPDX-License-Identifier: MIT
"""``refine`` for what other libraries' models return, one module for each library, by its name.

``transformers``, ``torchvision``, ``segmentation_models_pytorch`` and ``mmseg`` have a function
``refine``; ``monai`` has the dictionary transform ``CRFRefined``. None of them is imported here. A
module does not import its library either (but for ``monai``, whose transforms are classes of its
own): it asks of its arguments what that library's documentation says they have.
"""
