package source_test

import "errors"

func makePipe(string) error { return errors.New("pipes have no names here") }
