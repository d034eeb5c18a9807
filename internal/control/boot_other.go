//go:build !linux && !darwin

package control

// bootID is not known here, so what was not closed well is never taken to be whole.
func bootID() string { return "" }
