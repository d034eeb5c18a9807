//go:build !linux && !darwin

package embedded

// closeInherited has nothing to do: open files are inherited here only if they are named.
func closeInherited(uintptr) {}
