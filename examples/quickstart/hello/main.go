// Command hello is what the quickstart builds an image of.
package main

import "fmt"

func main() { fmt.Println("hello from a berth") }
