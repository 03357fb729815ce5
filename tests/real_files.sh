#!/bin/sh
# Make files of each type that the app takes, in the current folder, with the tools that people make them with;
# CHROMIUM is the one to use.
set -eu
picture='-size 640x480 plasma:red-blue -pointsize 40 -annotate +40+100 Hello'

convert $picture plain.png
convert $picture -colorspace Gray -depth 16 grey.png
convert $picture -colors 16 -transparent red palette.png
convert $picture -set comment 'where I live' photo.jpg
convert $picture -colorspace CMYK print.jpeg
convert $picture -interlace JPEG progressive.jpg
convert -delay 20 $picture '(' +clone -negate ')' two.gif
cwebp -quiet plain.png -o lossy.webp
cwebp -quiet -lossless palette.png -o lossless.webp

gs -q -dBATCH -dNOPAUSE -sDEVICE=pdfwrite -sOutputFile=printed.pdf \
    -c '/Helvetica 40 selectfont 72 500 moveto (Hello) show showpage'
"$CHROMIUM" --headless --no-sandbox --disable-gpu --user-data-dir=profile \
    --print-to-pdf=page.pdf 'data:text/html,<h1>Hello</h1>' 2>/dev/null
rm -r profile

# A spreadsheet is a ZIP file, and stays one inside a PDF. Then what happens to PDFs on their way.
python3 -c 'import zipfile; zipfile.ZipFile("sheet.xlsx", "w").writestr("xl/workbook.xml", "<workbook/>" * 9)'
pdfattach printed.pdf sheet.xlsx attached.pdf
pdfattach attached.pdf attached.pdf nested.pdf
pdfattach page.pdf sheet.xlsx attached-to-page.pdf
rm sheet.xlsx
{ cat attached.pdf; printf '%1200s' ''; } >blanks.pdf
{ cat printed.pdf; head -c 80000 /dev/zero; } >padded.pdf
{ cat attached.pdf; echo 'Sent by scanner 7, 2025-11-25'; } >line.pdf
{ echo; cat printed.pdf; } >newline.pdf
{ printf '\357\273\277'; cat attached.pdf; } >marked.pdf
gs -q -dBATCH -dNOPAUSE -dFastWebView -sDEVICE=pdfwrite -sOutputFile=linearized.pdf page.pdf >/dev/null 2>&1
gs -q -dBATCH -dNOPAUSE -sOwnerPassword=o -sUserPassword=u -sDEVICE=pdfwrite -sOutputFile=encrypted.pdf page.pdf

ls --help >help.txt
printf '\357\273\277Gr\303\274\303\237e\r\n' >windows.txt
