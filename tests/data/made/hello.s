# The whole program of the image `hello`: writes one line and ends. Assembled with
#   as hello.s -o hello.o && ld -N -s hello.o -o hello
.globl _start
.text
_start: mov $1, %eax
        mov $1, %edi
        lea text(%rip), %rsi
        mov $(end - text), %edx
        syscall
        mov $60, %eax
        xor %edi, %edi
        syscall
text:   .ascii "hello from an image that came over IPFS\n"
end:
