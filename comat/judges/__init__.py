"""What says something of an image: oracle, CLIP, question answering, detector, features."""
