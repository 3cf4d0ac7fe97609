"""Is a data set consistent?"""
